import pickle

import pytest

from diffcut_bench.errors import UserError, without_credentials


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("https://user:pw@host/a.tar", "https://host/a.tar"),
        ("s3://KEY:p@ss@host:9000/bucket (no answer)", "s3://host:9000/bucket (no answer)"),
        ("https://token@host", "https://host"),
        ("a https://u:p@h/x, then ftp://v:q@h/y", "a https://h/x, then ftp://h/y"),
        ("https://h/x?sv=2&sig=abc%3D&X-Amz-Signature=9f#top", "https://h/x?sv=2&sig=***&X-Amz-Signature=***#top"),
        ("https://host/path@v1?who=me@there", "https://host/path@v1?who=me@there"),
        ("hf://datasets/you/voc@main/voc-val", "hf://datasets/you/voc@main/voc-val"),
        ("mail someone@example.org, see /data/a@b", "mail someone@example.org, see /data/a@b"),
    ],
)
def test_credentials_are_left_out_and_nothing_else(text, safe):
    assert without_credentials(text) == safe


def test_no_user_error_shows_credentials_in_any_process():
    url = "https://user:pw@host/x?token=abc"
    error = pickle.loads(pickle.dumps(UserError(f"no answer of {url}", url, f"try {url}")))
    assert str(error).count("https://host/x?token=***") == 3
    assert "pw" not in str(error) + repr(error)
