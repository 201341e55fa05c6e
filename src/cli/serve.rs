use super::args::Serve;
use super::exit::Failure;
pub(super) fn run(_: Serve) -> Result<(), Failure> {
    Ok(())
}
