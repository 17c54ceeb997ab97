"""What the deep spectral encoder is compared with: spectral methods, kernel methods, recurrent and state-space nets."""
