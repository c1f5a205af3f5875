"""Views of the built-in modalities: their content in human units, as JSON for pages, and drawn.

Importing the package registers them.
"""

from perceivers.explain.contents import array as array
from perceivers.explain.contents import audio as audio
from perceivers.explain.contents import image as image
from perceivers.explain.contents import points as points
from perceivers.explain.contents import series as series
from perceivers.explain.contents import table as table
from perceivers.explain.contents import text as text
from perceivers.explain.contents import video as video
