"""The page's pure modules, tested by Node's own runner; what they do in a browser is end_to_end's business."""

import subprocess
from pathlib import Path

PAGE = Path(__file__).parent


def test_the_modules_of_the_page_pass_their_tests() -> None:
    run = subprocess.run(
        ["node", "--test", *sorted(str(file) for file in PAGE.glob("*.test.mjs"))], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
