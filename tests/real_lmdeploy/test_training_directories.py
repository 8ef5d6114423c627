"""A trainer's checkpoint on real lmdeploy: shards written by torch, and everything a trainer writes beside them."""

import json
import shutil
from pathlib import Path

from tests.real_lmdeploy.box import FEW, LmdeployBox
from tests.real_lmdeploy.conftest import MakeBox


def test_a_trainer_s_checkpoint_in_pytorch_shards_replies_as_the_model_in_safetensors(
    make_box: MakeBox, whole: LmdeployBox, tiny: Path, tmp_path: Path
) -> None:
    import torch  # imported late: slow, and these tests are skipped more often than not
    from safetensors.torch import load_file

    trained = shutil.copytree(tiny, tmp_path / "checkpoint-500")
    weights = load_file(trained / "model.safetensors")
    (trained / "model.safetensors").unlink()
    names = list(weights)
    files = {name: f"pytorch_model-0000{1 + (number % 2)}-of-00002.bin" for number, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: weights[name] for name in names if files[name] == file}, trained / file)
    (trained / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}), encoding="utf-8")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        torch.save({"state": torch.zeros(8)}, trained / name)
    (trained / "global_step500").mkdir()
    (trained / "trainer_state.json").write_text("{}", encoding="utf-8")

    box = make_box()
    result = box.run(trained, *FEW, "--", "--backend", "pytorch")
    assert result.returncode == 0, result.stderr
    expected, found = (one.by_question("reply") for one in (whole, box))
    assert len(found) == 6
    assert found == {key: expected[key] for key in found}
