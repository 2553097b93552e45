"""Words for classes, and the phrases that they are put into before a text encoder reads them."""

from collections.abc import Mapping, Sequence

# Written for this project, in the manner of prompts for CLIP: the paper gives their number, not their wording.
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a photo of many {}.",
    "a photo of a small {}.",
    "a photo of a large {}.",
    "a close photo of a {}.",
    "a photo of a {} far away.",
    "a photo of part of a {}.",
    "a bright photo of a {}.",
    "a dark photo of a {}.",
    "a blurred photo of a {}.",
    "there is a {} in the scene.",
    "a picture that shows a {}.",
)
# Names of the benchmarks that are no plain English, or that have a second one; ``|`` stands between synonyms.
SYNONYMS = {
    "aeroplane": "aeroplane|airplane",
    "diningtable": "dining table|table",
    "motorbike": "motorbike|motorcycle",
    "person": "person|man|woman|child",
    "pottedplant": "potted plant|houseplant",
    "sofa": "sofa|couch",
    "tvmonitor": "television|tv|monitor",
    "bedclothes": "bedclothes|bedding",
    "wood piece": "piece of wood|wood",
    "airplane": "airplane|aeroplane",
    "couch": "couch|sofa",
    "orange fruit": "orange",
    "tv remote": "remote control",
    "hair drier": "hair dryer",
    "scissor": "scissors",
    "cell phone": "cell phone|mobile phone",
}
# What pictures show behind the things that a benchmark names.
# fmt: off
BACKGROUND = (
    "background", "sky", "cloud", "wall", "ceiling", "floor", "ground", "grass", "field", "sand", "snow", "water",
    "sea", "river", "road", "street", "pavement", "building", "house", "bridge", "fence", "window", "door",
    "curtain", "carpet", "shelf", "cupboard", "tree", "forest", "bush", "leaf", "rock", "mountain", "railway track",
)
# fmt: on


def class_words(
    class_names: Sequence[str],
    background: int | None = None,
    words: Mapping[str, str] | None = None,
    background_words: Sequence[str] | None = None,
) -> tuple[tuple[str, ...], ...]:
    """Synonyms of each class.

    Args:
        class_names: a name may hold synonyms of its own: ``cat|kitten``.
        background: index of the class that the background's words stand for, if there is one. A word that names
            another class is left out of them.
        words: by class name, ``a|b``; they come before `SYNONYMS`, of which those that are another class are left out.
        background_words: in place of `BACKGROUND`.

    Raises:
        ValueError: a class is left without a word, or ``words`` names a class that there is not.
    """
    unknown = {*(words or {})} - {*class_names}
    if unknown:
        raise ValueError(f"words names classes that there are not: {', '.join(sorted(unknown))}")
    given = {word.lower() for name in class_names for word in split_synonyms((words or {}).get(name, name))}
    found = []
    for name in class_names:
        if name in (words or {}) or name not in SYNONYMS:
            found.append(split_synonyms((words or {}).get(name, name)))
            continue
        # A synonym of ours that is another class's word would take that class's segments away.
        own = split_synonyms(SYNONYMS[name])
        found.append(
            tuple(word for word in own if word.lower() == name.lower() or word.lower() not in given) or (name,)
        )
    if background is not None:
        others = {word.lower() for index, own in enumerate(found) if index != background for word in own}
        named = BACKGROUND if background_words is None else background_words
        found[background] = tuple(word for word in named if word.lower() not in others)
    for name, own in zip(class_names, found, strict=True):
        if not own:
            raise ValueError(f"class {name!r} has no word")
    return tuple(found)


def split_synonyms(text: str) -> tuple[str, ...]:
    """The words of ``cat|kitten``, without spaces around them and empty ones."""
    return tuple(word.strip() for word in text.split("|") if word.strip())
