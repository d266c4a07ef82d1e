"""What a shell completes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from effconv_core.cli import main


def completions(shell_line, script, *, cwd):
    """What bash offers at the end of a line."""
    words = shell_line.split(" ")
    program = f"""
source {script}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
COMP_LINE='{shell_line}'
COMP_POINT=${{#COMP_LINE}}
function=$(complete -p effconv | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function effconv "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "--norc", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PATH": path},
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_choices_and_files(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "plan.json").touch()

    def offers(line):
        return completions(line, tmp_path / "script", cwd=tmp_path)

    commands = {"search", "train", "check", "plan", "report", "data", "completion"}
    assert commands <= offers("effconv ")
    assert offers("effconv se") == {"search"}
    assert {"show", "diff", "apply"} <= offers("effconv plan ")
    assert "folder" in offers("effconv data prepare f")
    assert offers("effconv search --budget-") == {"--budget-counts"}
    assert {"parameters", "macs"} == offers("effconv search --budget-counts ")
    assert {"bank", "paper", "literal"} == offers("effconv train --recipe ")
    assert {word[:10] for word in offers("effconv search --search.k")} == {"--search.k"}
    assert offers("effconv search --search.ep") == {"--search.epochs"}
    assert offers("effconv plan show pl") == {"plan.json"}


def test_zsh_gets_a_script_too(capsys):
    assert main(["completion", "zsh"]) == 0
    assert "#compdef effconv" in capsys.readouterr().out


def test_another_shell_is_a_wrong_word(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["completion", "cmd.exe"])
    assert ended.value.code == 2
    assert "cmd.exe" in capsys.readouterr().err
