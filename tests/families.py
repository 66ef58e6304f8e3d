# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Where in the list of cases each family of public classes stands, and which classes are of no family."""

# The dicts of tests/cases.py in which each member of a family stands.
FAMILIES = {
    "nn": ["LAYERS", "NETS"],
    "transforms": ["IMAGE_TRANSFORMS", "TRANSFORMS"],
    "distributions": ["DEQUANTIZERS", "DISTRIBUTIONS", "POSTERIORS", "PRIORS", "LIKELIHOODS"],
    "infer": ["BOUNDS", "KL_CONTROLS"],
    "models": ["FACTOR_MODELS", "GAUSSIAN_MIXTURES", "MIXTURES", "MODELS"],
    "data": ["DATASETS", "DATASETS_OF_FILES"],
}
NOT_A_FAMILY = {  # public classes of these rooms that are not members of a family, each with the reason
    **dict.fromkeys(
        "Bound Dataset Dequantizer FlowTransform Head KLControl LevelDistribution Likelihood Net".split(), "a base"
    ),
    **dict.fromkeys("Batches Description Split".split(), "what a data set is made of"),
    **dict.fromkeys(
        "Compiled ConvergenceError GradientStep LogWeights Normal Objective".split(), "what stands beside a family"
    ),
    **dict.fromkeys("AmortisedMixture BayesianVAE BayesianWeights MarginalMixture".split(), "made of another model"),
    **dict.fromkeys(
        "AutoFlow BayesianMixture FlowModel GaussianMixturePrior HierarchicalVAE ImageFlow MeanField".split(), "alone"
    ),
    **dict.fromkeys("CoordinateAscent DataSetObjective EM EnumeratedEM EnumeratedObjective".split(), "a step, a loss"),
    **dict.fromkeys("Potential Unnormalized".split(), "the only one of its kind"),
    "Logit": "it maps an interval, where the others map all of space",
}
