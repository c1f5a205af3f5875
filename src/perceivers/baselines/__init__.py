"""Simple baselines: cheap scikit-learn models on simple features of the splits of a run."""

from perceivers.baselines import media as media
from perceivers.baselines import series as series
from perceivers.baselines import table as table
from perceivers.baselines import text as text
