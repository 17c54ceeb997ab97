"""Figures of merit. Import the module you need; this package imports none of them.

Of films taken apart:

- `swaps`: static and dynamic parts exchanged, decoded and judged
- `disentanglement`: the scores `D_sd` and `D_mf` from the judge's answers, and those of no skill
- `evaluation`: both for a model and a dataset, in one call
- `representation`: DCI, MIG and SAP, the field's scores, for comparison
- `reconstruction`: errors of redrawn held-out films
- `prediction`: errors of the operators, in the latent space and in pixels
- `thesis_tables`: the numbers printed in the SSM-SKD thesis

Of the rest:

- `spectral_error`: estimated eigenvalues against those an oscillator should have
- `film_errors`: predictors of films, at several horizons
- `trivial_predictors`: what predictors reach that know next to nothing
- `kann_tables`: the numbers printed in the KANN paper
- `anomaly`: heartbeats told apart by what an autoencoder cannot rebuild
"""
