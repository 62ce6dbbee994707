//! eci-fs
fn main(){}
