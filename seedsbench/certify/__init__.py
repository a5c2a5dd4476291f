"""The certificate: what each solver really does, measured on problems whose answers are known."""
