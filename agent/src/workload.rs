//! cgroup to label to identity.
