"""Networks, and the linear algebra around them. Import the module you need; this package imports none of them.

Films taken apart:

- `koopman`: one-step prediction, spectral loss, static/dynamic split and swaps of latents, by `kpm.solvers`
- `koopman_autoencoder`: SKD and SSM-SKD, the autoencoder of films with linear dynamics
- `parts`: films of a dataset taken apart, ready to be put together in other ways
- `resplit`: films split again, so that a motion is what films of its kind have in common
- `channel_basis`: axes of the static latents along which factors vary independently
- `judge`: the classifier of factors that swaps are scored with

The deep spectral encoder:

- `dse`: the model itself, and what it is for once it is fitted
- `dse_networks`: its networks and their sizes, for signals
- `dse_image_networks`: the same for images
- `dse_operators`: its operators, noise and spectrum, solved for in closed form
- `dse_filtering`: filtering and forecasting with it
- `dse_published`: its filter as the published code sets it up
- `principal_components`: of films
- `baselines`: what it is compared with

Limits of infinitely many layers:

- `sim`: stable invariant models, whose limit is a projector
- `deq`: deep equilibrium models, and weight-tied ones
- `mondeq`: monotone equilibrium models, which have exactly one fixed point
- `feedforward`: the same without a limit
- `bases`: what turns an input into observables or into the drive of an equilibrium
- `equal_sizes`: all of these at about one size, by name

Layers as a linear system:

- `res_mlp`: a classifier whose layers all have one width
- `alignment`: states of layers made comparable
- `kae`: the Koopman autoencoder of them
- `surrogate`: a classifier whose depth is that operator

Recurrent networks for `kpm.analysis.kann`:

- `sentiment`: reads reviews
- `beat_autoencoder`: rebuilds heartbeats
- `copy_memory`: repeats symbols after a wait

Beneath them:

- `layers`: convolutions whose bias gradient is cheap
- `training_swaps`: latents of films with a part of another film, as a training sees them
- `looks`: what a frame looks like whatever moves in it, by which a training tells whose look a swap has
- `similar_motion`: which film of a batch moves most like another, and films with the motion of such a one
- `widening`: a larger decoder that begins where a smaller one is
- `shared_batch`: layers that see a batch which several processes share
- `inference`: copies of trained networks that only answer, faster
"""
