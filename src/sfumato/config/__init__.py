"""Settings: the only reader of the environment. Roles get `Settings`; adapters get plain values."""

from sfumato.config.environment import child_environment, inherited_environment, metrics_shared_in, unknown_variables
from sfumato.config.loading import BadSettings, load_settings, load_settings_before_list
from sfumato.config.settings import Settings

__all__ = [
    "BadSettings",
    "Settings",
    "child_environment",
    "inherited_environment",
    "load_settings",
    "load_settings_before_list",
    "metrics_shared_in",
    "unknown_variables",
]
