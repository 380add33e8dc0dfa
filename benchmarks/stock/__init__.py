"""What plain Ray Tune + Train + OptunaSearch get wrong, kept as contracts: run them when Ray is updated."""
