"""A checkpoint as the user gives it: with an adapter, a model file, leave for its code, arguments for its server."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bundle.checkpoints import (
    Checkpoint,
    fingerprint,
    has_chat_template,
    inspect_checkpoint,
    is_internlm2,
    require_trust,
    require_unchanged,
    require_values,
    when_written,
)
from bundle.config.model_files import EngineSettings, ModelFile, model_file, model_file_for
from bundle.errors import UsageError
from bundle.pipeline.options import LocalOptions
from bundle.reports.screen.console import Screen
from bundle.runs.record import LocalModelRecord
from bundle.serving.arguments import Arguments
from bundle.serving.conversion import CONVERTED, cache_directory
from bundle.system.background import in_thread
from bundle.system.files import user_path
from bundle.system.guarded import without_keys


class LocalCheckpoint:
    """What is served, once it has been opened.

    Args:
        arguments: Passed on to the server's own command line.
        dry_run: Whether nothing will be served, so that an adapter need not be merged.
    """

    def __init__(
        self, directory: Path, options: LocalOptions, arguments: Sequence[str], *, dry_run: bool = False
    ) -> None:
        self.directory = directory
        self.options = options
        self.arguments = arguments
        self._is_dry = dry_run
        self._merged: tuple[Checkpoint, object] | None = None

    async def open(self, screen: Screen) -> None:
        """Merge an adapter, and inspect the checkpoint. Raises BundleError if it cannot be served."""
        if (adapter := self._adapter) is not None:
            self._merged = await in_thread(lambda: self._merge(adapter, screen))
        # Not on the loop's own thread, which cannot wait for the process that reads .bin files.
        if (note := await in_thread(self._look)) is not None:
            screen.say(f"warning: {note}")
        if (unchecked := self.checkpoint.weights_unchecked) is not None:
            screen.say(f"weights not compared with config.json: {unchecked}")

    def _look(self) -> str | None:
        self.require_unchanged()  # from now on
        return require_values(self.checkpoint.weights)

    @property
    def _adapter(self) -> Path | None:
        """The adapter's directory. Raises UsageError if there are several, which are models of their own."""
        if len(self.options.adapter) > 1:
            raise UsageError("A run has one --adapter.", remedy="Name one, or `bundle eval-local` them all.")
        return self.options.adapter[0] if self.options.adapter else None

    def _merge(self, adapter: Path, screen: Screen) -> tuple[Checkpoint, object]:
        from bundle.checkpoints.merge import open_merged  # imported late: most runs need none of it

        cache = None if self._is_dry else cache_directory() / CONVERTED
        return open_merged(self.directory, adapter, cache, say=screen.say)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return inspect_checkpoint(self.directory) if self._merged is None else self._merged[0]

    @cached_property
    def _written(self) -> Mapping[Path, tuple[int, int]]:
        return when_written(self.checkpoint)

    def require_unchanged(self) -> None:
        """Raise CheckpointError if the checkpoint has been written to since it was opened."""
        require_unchanged(self.checkpoint, self._written)

    @cached_property
    def named_model_file(self) -> tuple[str, ModelFile]:
        """The model file and its name."""
        if self.options.model_file is not None:
            return self.options.model_file, model_file(self.options.model_file)
        return model_file_for(self.checkpoint.architecture)

    @property
    def model_file(self) -> ModelFile:
        """How it is asked. Raises CheckpointError if its own code may not run."""
        if not is_internlm2(self.checkpoint.config):  # every engine serves those without their code
            require_trust(self.checkpoint, trusted=self.trusted)
        file = self.named_model_file[1]
        return file if self.has_template else file.model_copy(update={"prompt_shape": "plain"})

    @cached_property
    def trusted(self) -> bool:
        """Whether its own code may run."""
        chosen, file = self.options.trust_remote_code, self.named_model_file[1]
        if chosen is not None:
            return chosen
        return file.trust_remote_code or self.checkpoint.is_known_code(file.trusted_code)

    @cached_property
    def has_template(self) -> bool:
        """Whether there is a chat template to ask with: the checkpoint's, or one that the user chose for the server."""
        return self.chosen_template or has_chat_template(self.checkpoint)

    @property
    def chosen_template(self) -> bool:
        """Whether the user chose a chat template for the server."""
        return Arguments(self.arguments).with_hyphens().has("--chat-template")

    @cached_property
    def directories(self) -> tuple[Path, Path | None]:
        """What the user gave: the checkpoint's directory, and an adapter's."""
        adapter = self._adapter
        if adapter is None:
            return self.checkpoint.path, None
        return user_path(self.directory).resolve(), user_path(adapter).resolve()

    def record(self) -> LocalModelRecord:
        """The checkpoint, for ``run.json``. Reads samples of its weights. Raises CheckpointError if it has changed."""
        checkpoint = self.checkpoint
        path, adapter = self.directories
        found = fingerprint(checkpoint)
        self.require_unchanged()
        return LocalModelRecord(
            path=str(path),
            architecture=checkpoint.architecture,
            weight_bytes=checkpoint.weights.size,
            quantization=checkpoint.quantization,
            fingerprint=found,
            adapter=None if adapter is None else str(adapter),
        )

    def settings(self, engine: str) -> EngineSettings:
        """What the model file gives an engine."""
        found: EngineSettings = getattr(self.named_model_file[1], engine, EngineSettings())
        return found

    def given_to(self, engine: str) -> dict[str, Any]:
        """What an engine is given by the user and by the model file, as in `EngineRecord`."""
        settings = self.settings(engine)
        return {
            "name": engine,
            "arguments": tuple(self.arguments),
            "file_arguments": settings.args,
            "file_environment": without_keys(settings.env),
        }
