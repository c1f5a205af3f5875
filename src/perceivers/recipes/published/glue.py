"""GLUE: fine-tuning of masked language models, one task at a time."""

from perceivers.data.modalities.text.modality import TextAugmentConfig, TextPreprocessConfig
from perceivers.models.decoder import OutputConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.recipes.published.language import TEXT_SIZES, byte_model
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.classification import ClassificationConfig


@recipe(sizes=TEXT_SIZES)
def glue(size: str = "paper") -> Recipe:
    """A task of GLUE on the bytes of one sentence, or of two with the token SEP between them.

    The output is one learned query and a head of two layers with a tanh. Fine-tune from a run of `mlm_bytes` of the
    same size, or from DeepMind's weights (`perceivers convert deepmind/language-perceiver`). Learning rate and batch
    size are among the four that the paper tries for each task; it does not state the schedule after the warm-up.

    Run:      perceivers fit glue:mnli --recipe glue --columns premise:text,hypothesis:text --init-from runs/language
    Expected: CoLA 50.19, MNLI 83.22 / 83.89, MRPC 87.24, QNLI 91.71, QQP 90.12, RTE 64.84, SST-2 93.17, STS-B 86.81,
              80.95 in the mean, published for single tasks (not reproduced here). Multi-task training, not part
              of this recipe, is published with 81.49 (one input token), 81.76 (one token per task) and 81.79 (one
              query per task).
    Reference: Perceiver IO (arXiv:2107.14795), section 4.1, appendix F.4, tables 2 and 14. CoLA is by Matthews'
              correlation there and STS-B by Pearson's.
    """
    model = byte_model(size)
    head = LinearHeadConfig(num_outputs=None, hidden_channels=model.text.channels)
    return Recipe(
        name="glue",
        inputs={"text": model.text},
        encoder=model.encoder,
        output=model.decoder({"label": OutputConfig(queries=model.queries(), head=head)}),
        task=ClassificationConfig(),
        preprocess={"text": TextPreprocessConfig(max_length=model.length)},
        augment={"text": TextAugmentConfig(crop=False)},
        init=model.init,
        optim=OptimConfig(
            name="lamb",
            lr=5e-5,
            weight_decay=0.01,
            clip_norm=None,
            schedule="warmup_cosine",
            warmup_steps=200,
        ),
        training=TrainingConfig(batch_size=32, max_epochs=10),
    )
