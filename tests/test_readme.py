# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What the README promises runs: its Python blocks, and the verbs and options of its command lines."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
LINKS = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)


def test_there_is_an_example():
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_runs(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
    assert re.search(
        r"NLL <?= \d+\.\d\d \+- \d+\.\d\d nats \((IS, \d+ samples?[^)]*|exact), \d+ \w+[^)]*\)", capsys.readouterr().out
    )


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_somewhere(link):
    assert (Path(__file__).parent.parent / link).exists()
