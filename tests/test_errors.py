"""What a command says and how it ends when something is wrong."""

from tokenlabel.cli.boundary import reports_errors
from tokenlabel.errors import UserError


@reports_errors
def command(error: BaseException | None = None) -> int:
    if error is not None:
        raise error
    return 3


def ends_with(capsys, error: BaseException) -> tuple[int, str]:
    return command(error), capsys.readouterr().err


def test_nothing_wrong_changes_nothing():
    assert command() == 3


def test_bad_input_is_one_sentence_and_status_2(capsys):
    assert ends_with(capsys, UserError('no such file: check the path')) == (2, 'error: no such file: check the path\n')


def test_bad_input_met_by_a_worker_is_the_same_sentence(capsys):
    of_worker = (
        'Caught UserError in DataLoader worker process 0.\nTraceback ...\ntokenlabel.errors.UserError: no image\n'
    )
    assert ends_with(capsys, UserError(of_worker)) == (2, 'error: no image\n')


def test_a_defect_shows_its_traceback_and_how_to_report_it(capsys):
    status, text = ends_with(capsys, RuntimeError('unexpected'))
    assert status == 1
    assert 'Traceback' in text and 'RuntimeError: unexpected' in text
    assert 'this is a bug of tokenlabel' in text.splitlines()[-1]


def test_ctrl_c_is_one_line_and_status_130_of_the_leading_process(capsys, monkeypatch):
    assert ends_with(capsys, KeyboardInterrupt()) == (130, 'Stopped.\n')
    monkeypatch.setenv('RANK', '1')
    assert ends_with(capsys, KeyboardInterrupt()) == (130, '')


def test_names_that_the_terminal_has_not_are_printed_all_the_same(run_tool, tmp_path):
    script = tmp_path / 'says.py'
    script.write_text(
        'from tokenlabel.cli.boundary import reports_errors\n'
        'from tokenlabel.errors import UserError\n'
        '@reports_errors\n'
        'def main():\n'
        "    print('caf\\udce9 \\U0001f408')\n"
        "    raise UserError('caf\\udce9 \\U0001f408')\n"
        'raise SystemExit(main())\n'
    )
    done = run_tool(script, PYTHONIOENCODING='latin-1')
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        'caf\\udce9 \\U0001f408\n',
        'error: caf\\udce9 \\U0001f408\n',
    )
