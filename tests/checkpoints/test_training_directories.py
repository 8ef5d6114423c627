"""What trainers leave: a directory is served, or one line says which command makes a model of it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bundle.checkpoints import inspect_checkpoint
from bundle.errors import CheckpointError
from tests.checkpoints.checkpoints import write_checkpoint, write_json, write_pytorch, write_safetensors

TRAINER = ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth", "training_args.bin")
"""What transformers' Trainer writes beside a model."""


def with_files(directory: Path, names: Sequence[str]) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {})
    return directory


def refusal(directory: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        inspect_checkpoint(directory)
    return caught.value


@pytest.mark.parametrize(
    "names",
    [
        (*TRAINER, "trainer_state.json"),
        (*TRAINER, "latest", "zero_to_fp32.py", "global_step500/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        (*TRAINER, "optimizer_0/__0_0.distcp", "optimizer_0/.metadata"),
    ],
    ids=["trainer", "DeepSpeed", "FSDP"],
)
def test_optimizer_shards_beside_the_weights_do_not_matter(tmp_path: Path, names: Sequence[str]) -> None:
    directory = with_files(write_checkpoint(tmp_path / "checkpoint-500"), names)
    found = inspect_checkpoint(directory)
    assert [file.name for file in found.weights.files] == ["model.safetensors"]


def test_pytorch_shards_are_weights(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "checkpoint-500")
    (directory / "model.safetensors").unlink()
    torch = pytest.importorskip("torch")
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    write_pytorch(directory / names[0], {"embed": torch.zeros(2)})
    write_pytorch(directory / names[1], {"norm": torch.zeros(2)})
    write_json(directory / "pytorch_model.bin.index.json", {"weight_map": {"embed": names[0], "norm": names[1]}})
    assert [file.name for file in inspect_checkpoint(directory).weights.files] == names


def test_what_transformers_writes_is_a_checkpoint(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=64, **sizes))
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    write_json(tmp_path / "tokenizer.json", {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}})
    found = inspect_checkpoint(tmp_path)
    assert len(found.weights.files) > 1
    assert found.weights_unchecked is None


@pytest.mark.parametrize("with_config", [True, False], ids=["with config.json", "without"])
@pytest.mark.parametrize(
    ("names", "what", "command"),
    [
        (
            ["global_step500/zero_pp_rank_0_mp_rank_00_model_states.pt", "latest", "zero_to_fp32.py", *TRAINER],
            "shards of DeepSpeed (global_step500, zero_to_fp32.py)",
            "`python {0}/zero_to_fp32.py {0} {0} --tag global_step500 --safe_serialization`",
        ),
        (
            ["global_step500/mp_rank_00_model_states.pt", "global_step1000/mp_rank_00_model_states.pt", "latest"],
            "shards of DeepSpeed (global_step1000, global_step500)",
            "`python -m deepspeed.utils.zero_to_fp32 {0} {0} --tag global_step1000 --safe_serialization`",
        ),
        (
            ["zero_pp_rank_0_mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"],
            "shards of DeepSpeed (zero_pp_rank_0_mp_rank_00_model_states.pt, ",
            "`python -m deepspeed.utils.zero_to_fp32 {1} {1} --tag checkpoint-500 --safe_serialization`",
        ),
        (
            ["global_step5/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "latest", "zero_to_fp32.py"],
            "the state of a training run, without its model (global_step5, zero_to_fp32.py)",
            "`trainer.save_model(DIR)`",
        ),
        (
            ["optimizer.safetensors"],
            "the state of a training run, without its model (optimizer.safetensors)",
            "`trainer.save_model(DIR)`",
        ),
        (
            ["pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/__0_0.distcp", *TRAINER],
            "shards of FSDP (pytorch_model_fsdp_0)",
            "`accelerate merge-weights {0}/pytorch_model_fsdp_0 {0}`",
        ),
        (
            ["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"],
            "shards of verl",
            "`python -m verl.model_merger merge --backend fsdp --local_dir {0} --target_dir {0}-hf`",
        ),
        (
            ["__0_0.distcp", "__1_0.distcp", ".metadata"],
            "shards of torch.distributed.checkpoint (__0_0.distcp, __1_0.distcp)",
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch {0} {0}/pytorch_model.bin`",
        ),
        (
            ["iter_500.pth", "last_checkpoint"],
            "a checkpoint of XTuner (iter_500.pth)",
            "`xtuner convert pth_to_hf CONFIG.py {0}/iter_500.pth {0}/hf`",
        ),
        (
            ["iter_500.pth/mp_rank_00_model_states.pt"],
            "a checkpoint of XTuner (iter_500.pth)",
            "`xtuner convert pth_to_hf CONFIG.py {0}/iter_500.pth {0}/hf`",
        ),
        (
            ["iter_0000500/mp_rank_00/model_optim_rng.pt", "latest_checkpointed_iteration.txt"],
            "a checkpoint of Megatron-LM or NeMo (iter_0000500)",
            "tools/checkpoint/convert.py",
        ),
        (
            ["__0_0.distcp", "common.pt", "metadata.json"],
            "a checkpoint of Megatron-LM or NeMo (common.pt)",
            "tools/checkpoint/convert.py",
        ),
        (
            ["pytorch_model/mp_rank_00_model_states.pt", "latest", "random_states_0.pkl", "zero_to_fp32.py"],
            "shards of DeepSpeed (pytorch_model, zero_to_fp32.py)",
            "`python {0}/zero_to_fp32.py {0} {0} --tag pytorch_model --safe_serialization`",
        ),
        (
            ["global_step_100/actor/model_world_size_2_rank_0.pt", "latest_checkpointed_iteration.txt"],
            "shards of verl (global_step_100)",
            "--local_dir {0}/global_step_100/actor --target_dir {0}/global_step_100-hf`",
        ),
        (
            ["dist_ckpt/common.pt", "dist_ckpt/__0_0.distcp", "transformer_config.json"],
            "shards of verl with Megatron (dist_ckpt)",
            "`python -m verl.model_merger merge --backend megatron --local_dir {0} --target_dir {0}-hf`",
        ),
        (
            ["model_tp0_pp0.pt", "model_config.pt", "optimizer_tp0_pp0_zo0.pt", "context.pt"],
            "a checkpoint of InternEvo (model_tp0_pp0.pt)",
            "`python transformers/convert2hf_internlm2.py --src {0} --tgt {0}-hf --tokenizer TOKENIZER.model`",
        ),
        (["lit_model.pth"], "a checkpoint in its trainer's own format (lit_model.pth)", "litgpt convert_from_litgpt"),
        (
            ["trainer_state.json", *TRAINER],
            "the state of a training run, without its model (optimizer.pt, rng_state_0.pth",
            "`trainer.save_model(DIR)`",
        ),
    ],
    ids=[
        *("DeepSpeed", "DeepSpeed without its script", "one step of DeepSpeed", "DeepSpeed's optimizer alone"),
        *(
            "an optimizer's safetensors",
            "FSDP",
            "verl",
            "DCP",
            "XTuner",
            "XTuner with DeepSpeed",
            "Megatron",
            "Megatron with DCP",
            "accelerate with DeepSpeed",
            "verl's steps",
            "verl with Megatron",
            "InternEvo",
            "another",
            "state alone",
        ),
    ],
)
def test_what_must_be_converted_first_is_named_with_its_command(
    tmp_path: Path, names: Sequence[str], what: str, command: str, with_config: bool
) -> None:
    directory = tmp_path / "checkpoint-500"
    if with_config:
        (write_checkpoint(directory) / "model.safetensors").unlink()
    error = refusal(with_files(directory, sorted(names)))
    assert what in error.message
    assert ("config.json but no weights" in error.message) == with_config
    assert command.format(directory, tmp_path) in str(error.remedy)


def test_what_verl_has_beside_its_shards_is_not_taken_for_a_model(tmp_path: Path) -> None:
    actor = tmp_path / "step" / "actor"
    (write_checkpoint(actor / "huggingface") / "model.safetensors").unlink()
    with_files(actor, ["model_world_size_2_rank_0.pt"])
    for given, what in (
        (actor, "holds shards of verl"),
        (tmp_path / "step", "holds shards of verl"),
        (actor / "huggingface", "no weights: the directory above holds shards of verl"),
    ):
        error = refusal(given)
        assert what in error.message
        assert f"--local_dir {actor} --target_dir" in str(error.remedy)


def test_the_model_that_verl_has_saved_beside_its_shards_is_named(tmp_path: Path) -> None:
    with_files(tmp_path, ["global_step_100/actor/model_world_size_2_rank_0.pt"])
    model = write_checkpoint(tmp_path / "global_step_100" / "actor" / "huggingface")
    assert refusal(tmp_path).remedy == f"Give {model}."


@pytest.mark.parametrize("above", ["", "v0-20261127/"])
def test_an_adapter_is_called_one_also_with_the_configuration_of_its_base(tmp_path: Path, above: str) -> None:
    adapter = tmp_path / f"{above}checkpoint-500"
    with_files(adapter, ["adapter_config.json", "adapter_model.safetensors", *TRAINER])
    assert str(refusal(tmp_path).remedy).endswith(f"--adapter {adapter}.")
    (write_checkpoint(adapter) / "model.safetensors").unlink()
    error = refusal(adapter)
    assert "holds a LoRA adapter, not a whole model" in error.message
    assert str(error.remedy).endswith(f"--adapter {adapter}.")


def test_the_adapters_in_a_directory_of_a_training_run_are_named(tmp_path: Path) -> None:
    names = [f"checkpoint-{step}/adapter_config.json" for step in (50, 500)]
    assert f"--adapter {tmp_path / 'checkpoint-500'}" in str(refusal(with_files(tmp_path, names)).remedy)


@pytest.mark.parametrize("shards", [True, False])
def test_weights_without_values_are_told_how_to_be_gathered(tmp_path: Path, *, shards: bool) -> None:
    directory = write_checkpoint(tmp_path)
    write_safetensors(directory / "model.safetensors", {"embed": ("BF16", [0]), "norm": ("BF16", [8])})
    if shards:
        with_files(directory, ["global_step500/mp_rank_00_model_states.pt"])
    error = refusal(directory)
    assert "model.safetensors holds no values of embed" in error.message
    assert ("--tag global_step500" if shards else "stage3_gather_16bit_weights_on_model_save") in str(error.remedy)


def test_the_latest_checkpoint_of_a_run_comes_first(tmp_path: Path) -> None:
    for step in (500, 1000, 50):
        write_checkpoint(tmp_path / f"checkpoint-{step}")
    remedy = str(refusal(with_files(tmp_path, ["trainer_state.json"])).remedy)
    assert remedy.index("checkpoint-1000") < remedy.index("checkpoint-500") < remedy.index("checkpoint-50.")


def test_a_tokenizer_in_the_directory_above_is_to_be_copied(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "my run" / "checkpoint-500")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        write_json(tmp_path / "my run" / name, {})
    (directory / "tokenizer.json").unlink()
    above = tmp_path / "my run"
    command = f"`cp '{above}/tokenizer.json' '{above}/tokenizer_config.json' '{directory}'`"
    assert command in str(refusal(directory).remedy)
