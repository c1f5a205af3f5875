"""Texts of one's own by single bytes and one output query: what a model of masked bytes goes on to be."""

from perceivers.data.base import DataConfig
from perceivers.data.modalities.text.modality import TextAugmentConfig, TextPreprocessConfig
from perceivers.models.decoder import OutputConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.recipes.common import own_optim
from perceivers.recipes.published.language import text_reading
from perceivers.recipes.registry import Recipe, TrainingConfig, recipe
from perceivers.tasks.classification import ClassificationConfig

__all__ = ["text_io"]


@recipe
def text_io(size: str = "tiny") -> Recipe:
    """Your own texts, every byte an element, and one learned query that asks for the class, the labels or numbers.

    Reads as `mlm_bytes` of the same size does, so that a run of that, which needs no labels, can be its beginning.

    Run:      perceivers fit DATA --recipe mlm_bytes --size tiny --out runs/words, then
              perceivers fit DATA --recipe text_io --size tiny --init-from runs/words
    Expected: 60.8 % of IMDB's test reviews after 20 + 20 minutes of one core; from scratch 50.0 % after 40.
    Source:   Ours, of the papers' parts: Perceiver IO (arXiv:2107.14795), section 4.1, fine-tunes so, with a query in
              place of BERT's mark [CLS].
    """
    reads = text_reading(size)
    return Recipe(
        name="text_io",
        inputs={"text": reads.text},
        encoder=reads.encoder,
        output=reads.decoder(
            {
                "label": OutputConfig(
                    queries=reads.queries(), head=LinearHeadConfig(num_outputs=None)
                )
            }
        ),
        task=ClassificationConfig(label_smoothing=0.05),
        preprocess={"text": TextPreprocessConfig(max_length=reads.length, keep="random")},
        augment={"text": TextAugmentConfig()},
        init=reads.init,
        data=DataConfig(clips=8),  # in evaluation a long text is read in so many parts
        optim=own_optim(reads.lr / 2),
        training=TrainingConfig(batch_size=reads.batch_size),
    )


text_io.sizes = ("tiny", "small")  # type: ignore[attr-defined]
