"""What launchers say in the environment is read once, and nonsense is one sentence."""

import os

import pytest

from tokenlabel.errors import UserError
from tokenlabel.processes.launch_environment import Place, cores_per_process, launched_place, own_place

TWO = {'RANK': '1', 'LOCAL_RANK': '1', 'WORLD_SIZE': '2', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': '29500'}
SLURM = {'SLURM_PROCID': '1', 'SLURM_LOCALID': '0', 'SLURM_NTASKS': '2', 'SLURM_NODELIST': 'n[1-2]'}


def test_a_process_knows_its_place():
    assert own_place({}) == Place(0, 0, 1)
    assert own_place(TWO) == launched_place('pytorch', TWO) == Place(1, 1, 2)
    assert launched_place('slurm', SLURM) == Place(1, 0, 2)
    mpi = {'OMPI_COMM_WORLD_RANK': '1', 'OMPI_COMM_WORLD_LOCAL_RANK': '1', 'OMPI_COMM_WORLD_SIZE': '2'}
    assert launched_place('mpi', mpi | {'MASTER_ADDR': 'localhost'}) == Place(1, 1, 2)
    assert launched_place('none', TWO) == Place(0, 0, 1)


@pytest.mark.parametrize('text', ['x', '', ' ', '-1', '1.0', '1e3', 'None', '0x1', '²'])
@pytest.mark.parametrize('name', ['RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_PORT'])
def test_what_is_no_number_is_named(name, text):
    for read in (own_place, lambda environment: launched_place('pytorch', environment)):
        with pytest.raises(UserError, match=f'The environment sets {name} to .*, which is not a whole number'):
            read(TWO | {name: text})


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'RANK': '2'}, 'RANK is 2 but must be less than WORLD_SIZE, which is 2'),
        ({'LOCAL_RANK': '5'}, 'LOCAL_RANK is 5 but must be less than LOCAL_WORLD_SIZE, which is 2'),
        ({'LOCAL_WORLD_SIZE': '1'}, 'LOCAL_RANK is 1 but must be less than LOCAL_WORLD_SIZE, which is 1'),
        ({'WORLD_SIZE': '0'}, 'WORLD_SIZE to .0., which is not a whole number from 1 on'),
        ({'MASTER_PORT': '65536'}, 'MASTER_PORT to .65536., which is not a whole number from 0 to 65535'),
    ],
)
def test_what_cannot_be_is_named(change, said):
    with pytest.raises(UserError, match=said):
        own_place(TWO | change)


@pytest.mark.parametrize('name', TWO)
def test_a_launcher_that_says_too_little_is_told(name):
    with pytest.raises(UserError, match=f'--launcher pytorch needs {name} in the environment: start the processes'):
        launched_place('pytorch', {key: value for key, value in TWO.items() if key != name})


def test_other_launchers_are_checked_alike():
    with pytest.raises(UserError, match='--launcher slurm needs SLURM_PROCID'):
        launched_place('slurm', {})
    with pytest.raises(UserError, match='--launcher mpi needs OMPI_COMM_WORLD_RANK'):
        launched_place('mpi', {})
    with pytest.raises(UserError, match=r'RANK to .x.'):
        launched_place('slurm', SLURM | {'SLURM_PROCID': 'x'})
    with pytest.raises(UserError, match=r'WORLD_SIZE to .x.'):
        launched_place('none', {'WORLD_SIZE': 'x'})


def test_processes_of_one_machine_share_its_cores():
    alone = cores_per_process({})
    assert alone == len(os.sched_getaffinity(0))
    assert cores_per_process({'LOCAL_WORLD_SIZE': '2'}) == max(1, alone // 2)
    assert cores_per_process({'LOCAL_WORLD_SIZE': '1000'}) == 1
