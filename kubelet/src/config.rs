//! KubeletConfiguration v1beta1 and the flags beside it.
