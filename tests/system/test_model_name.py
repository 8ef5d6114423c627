"""What a model is called."""

import pytest

from bundle.system.files import model_name


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("/models/internlm2_5-1_8b-chat", "internlm2_5-1_8b-chat"),
        ("/hub/models--internlm--internlm2_5-1_8b-chat/snapshots/0123abc", "internlm2_5-1_8b-chat"),
        ("/hub/models--gpt2/snapshots/0123abc", "gpt2"),
        ("/hub/models--/snapshots/0123abc", "0123abc"),
        ("/hub/datasets--a--b/snapshots/0123abc", "0123abc"),
        ("/mine/snapshots/step-100", "step-100"),
        ("tiny", "tiny"),
        ("/", "/"),
    ],
)
def test_it_is_the_directorys_or_in_a_hub_cache_that_of_its_repository(directory: str, name: str) -> None:
    assert model_name(directory) == name
