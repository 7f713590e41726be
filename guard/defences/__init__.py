"""All defences, one line each: the name in the policy's YAML and the spec that implements it."""

from __future__ import annotations

from guard.defences.base import Registry
from guard.defences.bin import Bin
from guard.defences.boundary_response import BoundaryResponse
from guard.defences.bounded_shift import BoundedShift
from guard.defences.clip import Clip
from guard.defences.codebook import Codebook
from guard.defences.dp_gaussian import DpGaussian
from guard.defences.dp_laplace import DpLaplace
from guard.defences.exponential import Exponential
from guard.defences.grid import Grid
from guard.defences.label_only import LabelOnly
from guard.defences.levels import Levels
from guard.defences.noise import Noise
from guard.defences.noisy_max import NoisyMax
from guard.defences.randomised_response import RandomisedResponse
from guard.defences.renormalise import Renormalise
from guard.defences.reverse_sigmoid import ReverseSigmoid
from guard.defences.rotate import Rotate
from guard.defences.round import Round
from guard.defences.secrets import Secrets
from guard.defences.temperature import Temperature
from guard.defences.top_k import TopK

DEFENCES: Registry = {
    "bin": Bin,
    "boundary_response": BoundaryResponse,
    "bounded_shift": BoundedShift,
    "clip": Clip,
    "codebook": Codebook,
    "dp_gaussian": DpGaussian,
    "dp_laplace": DpLaplace,
    "exponential": Exponential,
    "grid": Grid,
    "label_only": LabelOnly,
    "levels": Levels,
    "noise": Noise,
    "noisy_max": NoisyMax,
    "randomised_response": RandomisedResponse,
    "renormalise": Renormalise,
    "reverse_sigmoid": ReverseSigmoid,
    "rotate": Rotate,
    "round": Round,
    "secrets": Secrets,
    "temperature": Temperature,
    "top_k": TopK,
}
