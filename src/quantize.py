"""Export both networks as ONNX files in narrower number formats, and compare their scores with PyTorch's FP32.

Reads  data/dataset, models/challenge1.pt, models/challenge2.pt
Writes models/deploy/<network>/<variant>.onnx, metrics/quantize.json, plots/quantize.csv

A variant is rejected, with the reason, if it loses more than quantize.max_score_drop on the test participants, if it
cannot be made or if this CPU cannot run it. The stage goes on with the other variants. The stage benchmark measures
which of the accepted variants is fastest, because timings are not reproducible.
"""

import logging
import shutil
from functools import partial

import torch
from torch import nn

from hbn.data.dataset import DATASET, Dataset
from hbn.deploy import runtime, variants
from hbn.deploy.evaluation import Runner, TestSet, factor_test, judge, trial_test
from hbn.files import write_csv, write_json
from hbn.networks import inference
from hbn.networks.arithmetic import use_cpu
from hbn.stage import run

log = logging.getLogger(__name__)

STATED = ("sfreq_hz", "window_s", "trial_offset_s", "source")  # facts that go into every file


def main(p) -> None:
    use_cpu(p.exec.threads)
    shutil.rmtree(runtime.FOLDER, ignore_errors=True)
    report, rows = {"max_score_drop": p.quantize.max_score_drop}, []
    for name, test in (("challenge1", trial_test), ("challenge2", factor_test)):
        network, facts = inference.load_network(f"models/{name}.pt", made_by=name)
        dataset = Dataset.open(DATASET, facts["window_s"])
        report["source"] = dataset.source
        report[name] = compare(name, network, facts, dataset, test(dataset), p)
        rows += [
            {"network": name, "variant": variant, "score": score, "value": value}
            for variant, row in report[name].items()
            for score, value in row.get("scores", {}).items()
        ]
    write_json("metrics/quantize.json", report)
    write_csv("plots/quantize.csv", rows, ["network", "variant", "score", "value"])


def compare(name: str, network: nn.Module, facts: dict, dataset: Dataset, test: TestSet, p) -> dict[str, dict]:
    """Make, run and judge every variant of one network; a row of results each."""
    shape = len(dataset.positions_m), dataset.window_samples
    makers = variants.makers(network, shape, dataset, p.quantize)
    stated = {key: facts[key] for key in STATED if key in facts}
    runners: dict[str, Runner] = {"pytorch": lambda x_uv: network(torch.from_numpy(x_uv)).numpy()}
    table: dict[str, dict] = {}
    for variant in p.quantize.variants:
        path = runtime.FOLDER / name / f"{variant}.onnx"
        session = variants.make(makers[variant], path, stated, p.exec.threads)
        if isinstance(session, str):
            table[variant] = {"accepted": False, "reason": session}
        else:
            runners[variant] = partial(runtime.outputs, session)
            table[variant] = {"size_kb": path.stat().st_size / 1e3}
    outputs = test.outputs(runners, dataset)
    for variant in runners.keys() & table.keys():
        table[variant] |= judge(test, outputs["pytorch"], outputs[variant], p.quantize.max_score_drop, p.scores)
    for variant, row in table.items():
        verdict = "accepted" if row["accepted"] else f"rejected, {row['reason'].partition(': ')[0]}"
        log.info("%s %s: %s", name, variant, verdict)
    return {"pytorch": {"scores": test.scores(outputs["pytorch"])}, **table}


if __name__ == "__main__":
    run(main, reads=("quantize", "scores"))
