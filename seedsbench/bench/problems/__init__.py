"""What is sampled and scored: each builder is named by a YAML of conf/model/ or conf/metrics/."""
