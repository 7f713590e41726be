"""From recorded honest traffic to a profile: `guard calibrate`."""
