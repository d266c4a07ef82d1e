"""Files, strangers' JSON and terminals: the only modules that open, replace or delete anything."""
