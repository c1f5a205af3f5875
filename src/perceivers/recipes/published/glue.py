"""GLUE: what a model of masked bytes is fine-tuned to, one task after the other."""

from perceivers.data.modalities.text.modality import TextAugmentConfig, TextPreprocessConfig
from perceivers.models.decoder import OutputConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.recipes.published.language import TEXT_SIZES, text_reading
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.classification import ClassificationConfig


@recipe(sizes=TEXT_SIZES)
def glue(size: str = "paper") -> Recipe:
    """A task of GLUE by the bytes of one sentence or of two, which are read as one text with the mark SEP between them.

    One learned query asks, and two layers with a tanh between them answer. Begins from a run of `mlm_bytes` of the same
    size, or from DeepMind's weights (`perceivers convert deepmind/language-perceiver`). The rate is one of the four
    that the paper tries for each task, as is the batch; what the rate does after the warm-up it does not say.

    Run:      perceivers fit glue:mnli --recipe glue --columns premise:text,hypothesis:text --init-from runs/language
    Expected: CoLA 50.19, MNLI 83.22 / 83.89, MRPC 87.24, QNLI 91.71, QQP 90.12, RTE 64.84, SST-2 93.17, STS-B 86.81,
              80.95 in the mean, published for single tasks (not reproduced here). All at once, published: 81.49
              with one input token, 81.76 with a token for each task, 81.79 with a query for each; not in this recipe,
              which learns one task.
    Reference: Perceiver IO (arXiv:2107.14795), section 4.1, appendix F.4, tables 2 and 14. CoLA is by Matthews'
              correlation there and STS-B by Pearson's.
    """
    reads = text_reading(size)
    head = LinearHeadConfig(num_outputs=None, hidden_channels=reads.text.channels)
    return Recipe(
        name="glue",
        inputs={"text": reads.text},
        encoder=reads.encoder,
        output=reads.decoder({"label": OutputConfig(queries=reads.queries(), head=head)}),
        task=ClassificationConfig(),
        preprocess={"text": TextPreprocessConfig(max_length=reads.length)},
        augment={"text": TextAugmentConfig(crop=False)},
        init=reads.init,
        optim=OptimConfig(
            name="lamb",
            lr=5e-5,
            weight_decay=0.01,
            clip_norm=None,
            schedule="cosine",
            warmup_steps=200,
        ),
        training=TrainingConfig(batch_size=32, max_epochs=10),
    )
