"""Metrics that the README's table shows, besides those the papers have."""

HEADLINES = (
    "mse", "D_sd", "D_mf", "D_sd_published", "D_sd_no_lstm", "D_sd_swap_losses",
    "D_mf_independent", "D_mf_channels", "D_sd_resplit", "D_mf_resplit",
    "accuracy_test", "agreement", "e_rel", "agreement_padded", "e_rel_padded",
    "recall", "linearised_recall", "lexicon_r", "eig_error_mean13", "published_eig_error_mean13", "trials_per_level",
    "published_trials_per_level", "best_baseline_eig_error_mean13", "mse_one_step", "gap", "ratio_sets", "runs",
    "runs_not_finite", "forget_accuracy", "retain_before", "retain_accuracy", "centroid_forget_accuracy",
    "centroid_retain_accuracy", "rows_that_forget", "shuffled_forget_accuracy", "distance_r_first",
    "accuracy_test_dense_sim_one_free",
    "accuracy_test_dense_sim_one_oblique", "accuracy_test_dense_mondeq", "accuracy_test_dense_feed_forward",
    "accuracy_test_dense_sim_two_free", "accuracy_test_dense_sim_two_oblique", "accuracy_test_dense_weight_tied",
    "accuracy_test_dense_deq", "limit_error_ring5_oblique_short", "limit_error_ring5_oblique_enough",
    "accuracy_test_conv_sim_one_free", "accuracy_test_conv_sim_one_oblique", "accuracy_test_conv_mondeq",
    "accuracy_test_conv_feed_forward", "accuracy_test_conv_sim_two_free", "accuracy_test_conv_sim_two_oblique",
    "accuracy_test_conv_deq", "cycle_average_error",
    "cycle_learnt_omega_error", "mse_clean_last_frame_h1", "mse_clean_linear_h1", "mse_corrupted_last_frame_h1",
    "mse_corrupted_noise_floor_h1", "mse_corrupted_linear_h1",
)  # fmt: skip
