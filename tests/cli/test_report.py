# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""`pyro-dgm evaluate --report` prints sections, writes them into the results, and draws them."""

import json
import re

import pytest


def test_a_report_is_printed_written_and_drawn(tiny_run, say):
    line = f"evaluate {tiny_run} --num_samples 5 --num_data 60 --report curve,collapse,surgery --surgery_data 40"
    code, out, _ = say(line)
    assert code == 0
    assert re.search(r"NLL <= .* \(IS, 5 samples, 60 images", out)
    assert re.search(r"information = \d+\.\d+ \+- \d+\.\d+ nats \(exact q\(z\), 1 sample, 40 images\)", out)
    assert re.search(r"collapse of z: \d of 2 units", out)
    results = json.loads((tiny_run / "results.json").read_text())["test"]
    assert set(results["report"]) == {"curve", "collapse", "surgery"}
    assert results["nll"]["num_data"] == 60
    for name in ("bound_curve", "surgery"):
        assert str(tiny_run / "figures" / f"{name}-test.png") in out
        assert (tiny_run / "figures" / f"{name}-test.png").read_bytes().startswith(b"\x89PNG")


def test_gaps_take_a_flow(tiny_run, say):
    code, out, _ = say(f"evaluate {tiny_run} --num_samples 5 --num_data 20 --report gaps --gap_data 3 --flow Planar")
    assert code == 0
    for name in ("inference-gap >=", "approximation-gap ~", "amortization-gap >=", "won-by-flow >="):
        assert name in out
    assert (tiny_run / "figures" / "gaps-test.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--report surgry", "--report has no section 'surgry'. Did you mean surgery?"),
        ("--report units", "--report has no section 'units'."),
        ("--report curve --flow Planar", "add --report gaps"),
        ("--report gaps --flow Plannar", "--flow Plannar: no class of that name in pyro_dgm.transforms."),
    ],
)
def test_refusals(tiny_run, say, words, said):
    code, _, err = say(f"evaluate {tiny_run} {words}")
    assert code == 2
    assert said in err
