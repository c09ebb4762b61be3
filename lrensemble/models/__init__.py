"""Networks: the table, names of torchvision and timm, the user's own functions, and facts about a built network."""

from lrensemble.models.catalogue import MODELS, ModelLike, ModelSpec, build_model, model_name
from lrensemble.models.inspection import architecture_digest, check_model, count_flops, count_parameters

__all__ = [
    "MODELS",
    "ModelLike",
    "ModelSpec",
    "architecture_digest",
    "build_model",
    "check_model",
    "count_flops",
    "count_parameters",
    "model_name",
]
