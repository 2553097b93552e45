import pytest
import text_checkpoints
import torch
from torch.nn.functional import normalize

from diffcut_bench.errors import UserError
from diffcut_bench.naming import ClipEncoder
from diffcut_bench.naming.text import word_embeddings


def test_templates_are_averaged_as_unit_vectors():
    planted = {"a cat": [3.0, 0.0], "the cat": [0.0, 0.5], "a sofa": [0.0, 2.0], "the sofa": [0.0, 7.0]}

    def encode(texts):
        return torch.tensor([planted[text] for text in texts])

    found = word_embeddings(encode, ["cat", "sofa"], ["a {}", "the {}"])
    half = 0.5**0.5
    torch.testing.assert_close(found, torch.tensor([[half, half], [0.0, 1.0]]))


def test_many_texts_are_read_a_few_at_a_time():
    read = []

    def encode(texts):
        read.append(len(texts))
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    words = ["x" * (place % 50) for place in range(150)]
    found = word_embeddings(encode, words, ["{}", "a {}", "the {}"])
    assert max(read) < sum(read) == 450
    one = [word_embeddings(encode, [word], ["{}", "a {}", "the {}"])[0] for word in words]
    torch.testing.assert_close(found, torch.stack(one))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_texts_are_read_as_transformers_reads_them(tmp_path, kind):
    network = text_checkpoints.write_checkpoint(tmp_path, kind)
    encoder = ClipEncoder("tiny", str(tmp_path))
    texts = ["a photo of a cat .", "Sofa", "a picture that shows the disc in the scene " * 4]
    found = encoder.text(texts)
    tokens = []
    for text in texts:
        words = [text_checkpoints.VOCABULARY.index(word) for word in text.lower().split()]
        tokens.append([1, *words[:14], 2])
    for row, ids in zip(found, tokens, strict=True):
        if kind == "siglip":
            ids = ids + [0] * (16 - len(ids))
        with torch.no_grad():
            expected = network.get_text_features(input_ids=torch.tensor([ids])).pooler_output[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)
    assert (normalize(found, dim=1) @ normalize(found, dim=1).T).fill_diagonal_(0).max() < 0.9999


def test_a_damaged_tokenizer_is_a_users_error(tmp_path):
    text_checkpoints.write_checkpoint(tmp_path, "clip")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer can't be read"):
        ClipEncoder("tiny", str(tmp_path)).read()
