//! The view helper's side: it does what is ordered for a VM, as far as the VM's file says so.

use std::io;
use std::path::Path;

use super::backend::{Step, show};
use super::order::{ANSWER_LEN_MAX, Answer, Order, What};
use super::{
    Ground, ViewError, ViewOptions, ViewSpec, form_of, holders, idmap, mounts_for, number, target,
};
use crate::catalog::VmFile;
use crate::cli::out::causes;
use crate::store::SetInfo;
use stork_wire::codec::encode;

/// Does what is ordered; `file` is the VM's, as the helper has read it by itself. Nothing is done
/// where that says something else than the order.
#[must_use]
pub fn obey(state: &Path, file: &VmFile, order: &Order) -> Answer {
    let spec = ViewSpec::of(file);
    if (spec.backend, &spec.target) != (order.backend, &order.target) {
        let why = format!("the file of {} has just changed", spec.vm);
        return Answer::Failed(why, "the daemon reads it within a second".to_owned());
    }
    let answer = prepare(state, order, &spec).and_then(|ready| match ready {
        Some(ground) => act(&ground, file, &spec, order),
        None => Ok(Answer::Again),
    });
    fit(answer.unwrap_or_else(|e| failed(&e)))
}

/// Opens the store; none where a map of ids is missing that cannot be made any more.
fn prepare(
    state: &Path,
    order: &Order,
    spec: &ViewSpec,
) -> Result<Option<Ground<'static>>, ViewError> {
    let ground = Ground::bare(state, order.secret)?;
    let owner = ground.owner()?;
    let mut maps = idmap::maps_of(owner, spec.options.idmap);
    let ready = maps.all(|map| idmap::is_ready(map) || idmap::prepare(map).is_ok());
    Ok(ready.then_some(ground))
}

fn failed(e: &ViewError) -> Answer {
    let text = [e.to_string()].into_iter().chain(causes(e)).collect::<Vec<_>>().join(": ");
    Answer::Failed(text, e.help().to_owned())
}

/// An answer that is not too long: lists of what guests named are cut if need be.
pub(super) fn fit(mut answer: Answer) -> Answer {
    for (listed, text) in [(200, 4_096), (100, 400), (10, 400)] {
        if encode(&answer).len() <= ANSWER_LEN_MAX {
            break;
        }
        answer.cut(listed, text);
    }
    answer
}

fn act(
    ground: &Ground<'_>,
    file: &VmFile,
    spec: &ViewSpec,
    order: &Order,
) -> Result<Answer, ViewError> {
    target::check_target(ground.dir(), spec)?;
    let backend = show(spec.backend);
    if !mounts_for(spec.backend) {
        let why = io::Error::other("the daemon makes it by itself");
        return Err(ViewError::io("mount a view of hard links at", &spec.target, why));
    }
    match &order.what {
        What::Check => backend.check(spec)?,
        What::Shown => return Ok(Answer::Shown(backend.shown(ground, spec)?)),
        What::Switch { next, from, needs, manifests } => {
            backend.check(spec)?;
            // What a set needs is for the operator to grant, whoever says that it needs it.
            let granted = !file.privileged.is_empty();
            let set = SetInfo::on_disk(
                (ground.dir(), next.set),
                form_of(spec.backend),
                (granted && needs.0, granted && needs.1),
            );
            let next = next.generation(&spec.vm);
            let from = from.map(|f| f.generation(&spec.vm));
            let step = Step { set: &set, next: &next, from: from.as_ref(), manifests };
            backend.switch(ground, spec, step)?;
        }
        What::Mend(to) => backend.mend(ground, spec, &to.generation(&spec.vm))?,
        What::Tidy(kept) => backend.tidy(ground, spec, &kept.iter().copied().collect())?,
        What::Hide => {
            backend.hide(ground, spec)?;
            number::remove_beside(spec);
        }
        What::InUse(shows) => {
            let generation = shows.generation(&spec.vm);
            return Ok(Answer::Is(backend.in_use(ground, &generation)));
        }
        What::Drop(number) => backend.drop_generation(ground, spec, *number)?,
        What::Carried(number) => {
            return Ok(Answer::Carried(backend.carried(ground, spec, *number)));
        }
        What::Number(number) => number::write_beside(spec, *number),
        What::Holders(asked) => return Ok(Answer::Holders(holders::find(ground, asked)?)),
    }
    Ok(Answer::Done)
}

impl ViewSpec {
    /// The view that a VM's file asks for.
    #[must_use]
    pub fn of(file: &VmFile) -> Self {
        let isolation =
            if file.isolation_none { super::Isolation::None } else { super::Isolation::Default };
        Self {
            vm: file.name.clone(),
            backend: file.backend,
            target: file.target.clone(),
            isolation,
            keep_generations: file.keep_generations,
            options: ViewOptions::clone(&file.view),
        }
    }
}
