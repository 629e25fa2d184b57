"""What rewards with published weights share: the hub cache, image preparation, the models' classes."""
