"""What is done to a trained model: exploration of its latents, Koopman analysis of its states."""

from kpm.analysis.record_states import record_states

__all__ = ["record_states"]
