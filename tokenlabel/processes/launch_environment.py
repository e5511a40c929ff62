"""Rank and world size of this process, from the launcher's environment variables."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from tokenlabel.errors import UserError

# Environment variables of `torchrun`, and the names that other launchers use for them.
RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE = 'RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE'
NAMES = {
    'slurm': {RANK: 'SLURM_PROCID', LOCAL_RANK: 'SLURM_LOCALID', WORLD_SIZE: 'SLURM_NTASKS'},
    'mpi': {
        RANK: 'OMPI_COMM_WORLD_RANK',
        LOCAL_RANK: 'OMPI_COMM_WORLD_LOCAL_RANK',
        WORLD_SIZE: 'OMPI_COMM_WORLD_SIZE',
    },
}
LARGEST_PORT = 2**16 - 1


class Place(NamedTuple):
    """Rank, local rank and world size of this process.

    Attributes:
        rank: rank of the process, from 0.
        local_rank: rank among the processes of its machine, from 0.
        world: number of processes.
    """

    rank: int = 0
    local_rank: int = 0
    world: int = 1


def own_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Rank, local rank and world size from `torchrun`'s variables; 0, 0, 1 if none is set.

    Raises:
        UserError: a variable is not a number, or they contradict each other.
    """
    rank, local_rank = (_number(environment, name) for name in (RANK, LOCAL_RANK))
    world, local_world = (_number(environment, name, least=1) for name in (WORLD_SIZE, LOCAL_WORLD_SIZE))
    place = Place(rank or 0, local_rank or 0, 1 if world is None else world)
    for name, number, of, count in (
        (RANK, place.rank, WORLD_SIZE, place.world),
        (LOCAL_RANK, place.local_rank, LOCAL_WORLD_SIZE, place.world if local_world is None else local_world),
    ):
        if number >= count:
            raise UserError(
                f'{name} is {number} but must be less than {of}, which is {count}: start the processes with torchrun, '
                f'or unset {name}.'
            )
    _number(environment, 'MASTER_PORT', most=LARGEST_PORT)
    return place


def cores_per_process(environment: Mapping[str, str] = os.environ) -> int:
    """Number of CPU cores per process that the launcher started on this machine; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    number = environment.get(LOCAL_WORLD_SIZE, '1')
    return max(1, allowed // max(1, int(number) if number.isdecimal() else 1))


def launched_place(launcher: str, environment: Mapping[str, str] = os.environ) -> Place:
    """Rank, local rank and world size from the environment variables of a launcher.

    Args:
        launcher: 'pytorch', 'slurm' or 'mpi', or 'none' for a single process.
        environment: environment variables of this process.

    Raises:
        UserError: a variable is missing or not a number, or they contradict each other.
    """
    if launcher == 'none':
        for name in (RANK, LOCAL_RANK, WORLD_SIZE):  # a dry run prints the world size
            _number(environment, name, least=int(name == WORLD_SIZE))
        return Place()
    names = NAMES.get(launcher, {})
    needed = [names.get(name, name) for name in (RANK, LOCAL_RANK, WORLD_SIZE)]
    needed += [] if launcher == 'slurm' and 'SLURM_NODELIST' in environment else ['MASTER_ADDR']
    needed += ['MASTER_PORT'] if launcher == 'pytorch' else []
    if missing := [name for name in needed if name not in environment]:
        raise UserError(
            f'--launcher {launcher} needs {missing[0]} in the environment: start the processes with '
            'tools/dist_train.sh, tools/dist_test.sh or tools/slurm_train.sh, or leave out --launcher.'
        )
    own = {name: environment[names.get(name, name)] for name in (RANK, LOCAL_RANK, WORLD_SIZE)}
    others = (LOCAL_WORLD_SIZE, 'MASTER_PORT')
    return own_place(own | {name: environment[name] for name in others if name in environment})


def _number(environment: Mapping[str, str], name: str, least: int = 0, most: int | None = None) -> int | None:
    """The integer value of a variable, None if it is not set."""
    text = environment.get(name)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        bounds = f'from {least} on' if most is None else f'from {least} to {most}'
        raise UserError(
            f'The environment sets {name} to {text!r}, which is not a whole number {bounds}: start the processes with '
            f'torchrun, or unset {name}.'
        )
    return number
