"""Why a run ended: words for what is known, rules over them, and whom to suspect."""
