"""Rules by which `fit` chooses what a recipe for a user's own data leaves to the data: docs/defaults.md."""

from perceivers.recipes.rules import audio as audio
from perceivers.recipes.rules import image as image
from perceivers.recipes.rules import points as points
from perceivers.recipes.rules import series as series
from perceivers.recipes.rules import table as table
from perceivers.recipes.rules import text as text
from perceivers.recipes.rules import video as video
