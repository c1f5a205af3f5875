"""Features of text: counts of words, pairs of words and runs of characters, weighted by rarity."""

import re
from typing import Any

from perceivers.baselines.views import Array, Features, View, register_features
from perceivers.data.modalities.text.modality import BYTE_OFFSET

_SPEED = 1.2e6  # characters in a second, of words and pairs
_CHARACTERS = 4  # times as slow are runs of characters
_COLUMNS = 1 << 20
_FEW = 500  # texts, below which rare tokens are kept


def collect_texts(values: Array, mask: Array | None, _: Any) -> list[str]:
    """Return the text of each sample in lower case; "" if it is missing. Special tokens become blanks."""
    found: list[str] = []
    for place, ids in enumerate(values):
        real = ids if mask is None else ids[mask[place]]
        data = (real.clip(BYTE_OFFSET) - BYTE_OFFSET).astype("uint8").tobytes()
        found.append(data.decode("utf-8", "replace").replace("\0", " ").lower())
    return found


def text_views(train: list[str], test: list[str], seconds: float) -> list[View]:
    """Return the weights of tokens, TF-IDF with logarithmic counts, each kind of token of unit norm."""
    size = sum(map(len, train)) + sum(map(len, test))
    options: list[dict[str, Any]] = []
    if not _has_words(train):
        options = [{"analyzer": "char", "ngram_range": (1, 3)}]
        name = "character n-grams"
    else:
        options = [{"token_pattern": r"\w+|[^\w\s]", "ngram_range": (1, 2)}]
        name = "words and pairs of words"
        if (1 + _CHARACTERS) * size / _SPEED < seconds:
            options.append({"analyzer": "char_wb", "ngram_range": (2, 5)})
            name = "word and character n-grams"
    from scipy.sparse import hstack

    parts = [_weights(train, test, one) for one in options]
    first, second = zip(*parts, strict=True)
    return [View(kind="words", name=name, train=hstack(first, "csr"), test=hstack(second, "csr"))]


def _has_words(texts: list[str]) -> bool:
    """Return whether blanks separate words, unlike in Chinese or in sequences of bases."""
    sample = " ".join(texts[:200])
    return len(sample) < 12 * (len(re.findall(r"\w+", sample)) + 1)


def _weights(train: list[str], test: list[str], option: dict[str, Any]) -> tuple[Any, Any]:
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    plain: dict[str, Any] = {"alternate_sign": False, "norm": None, "lowercase": False}
    counter: Any = HashingVectorizer(n_features=_COLUMNS, **plain, **option)
    counts, others = counter.transform(train), counter.transform(test)
    rows = np.bincount(counts.indices, minlength=_COLUMNS)
    kept = np.flatnonzero(rows >= (2 if len(train) > _FEW else 1))
    weighting: Any = TfidfTransformer(sublinear_tf=True)
    return weighting.fit_transform(counts[:, kept]), weighting.transform(others[:, kept])


register_features("text", Features(collect=collect_texts, views=text_views))
