"""The command that compares predictions with published runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator_service.calibration import evaluate

CSV = """source,model,params_b,gpu,gpu_count,method,rank,per_device_batch,grad_accum,seq_len,precision,act_ckpt,packed,\
tokens_per_s_total,peak_mem_gib,mem_kind,notes
a,llama-3-8b,8.03,A100-80GB,1,LoRA,16,4,1,4096,bf16,y,y,3100,35,torch peak allocated,hf
a,llama-3-8b,8.03,A100-80GB,1,LoRA,16,4,1,4096,bf16,y,y,3000,35,torch peak allocated,hf
b,llama-2-70b,69,A100-80GB,1,LoRA,16,4,1,4096,bf16,y,y,,,,CUDA out of memory
b,llama-2-70b,69,H100,1,LoRA,16,8,1,4096,bf16,y,y,OOM,,,
b,mystery,,A100-80GB,1,LoRA,16,4,1,4096,bf16,y,y,3000,,,
b,llama-3-8b,8,Abacus,1,LoRA,,,,,,,,1,,,
"""


def test_the_report_says_what_was_read_and_what_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, errors, verdicts and the reasons why rows are unusable are in the JSON."""
    file = tmp_path / "runs.csv"
    file.write_text(CSV)
    assert evaluate.main([str(file), "--json", "--calibrate-with", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["usable"]) == (6, 4)
    assert set(report["unusable"]) == {"unknown model 'mystery' without a size", "unknown GPU 'Abacus'"}
    assert report["sources"]["a"]["time"]["median"] < 0.35
    assert (report["sources"]["b"]["out_of_memory"], report["sources"]["b"]["out_of_memory_caught"]) == (2, 1.0)
    assert report["overall"]["called_does_not_fit"] == 0.0


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The exit code is 2."""
    assert evaluate.main([str(tmp_path / "none.csv")]) == 2
