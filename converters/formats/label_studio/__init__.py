"""Label Studio's JSON (the format `label_studio`)."""
