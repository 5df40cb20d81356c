"""What happens to long sweeps, injected for real: processes are killed, disks fill, servers go away."""
