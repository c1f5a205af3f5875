"""View of event streams in explanations: points in x, y and time."""

import perceivers as pv
from perceivers.explain.contents.points import PointsContent

pv.register_view("events", lambda given: PointsContent(points=given.x[:, :3]))
