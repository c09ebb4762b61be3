"""How differently the members of a team behave: measures over pairs of members, focal diversity, and their table."""

from lrensemble.diversity.focal import FocalTables, focal_diversity
from lrensemble.diversity.measures import DIVERSITY, DiversityMetric
from lrensemble.diversity.probabilities import probability_disagreement
from lrensemble.diversity.tables import PairTables
from lrensemble.diversity.teams import all_teams, team_diversity

__all__ = [
    "DIVERSITY",
    "DiversityMetric",
    "FocalTables",
    "PairTables",
    "all_teams",
    "focal_diversity",
    "probability_disagreement",
    "team_diversity",
]
