//! Random graphs, random outcomes, random operators and random restarts.

use super::model::{Action, World};
use crate::graph::*;
use proptest::prelude::*;

fn action(batch: usize) -> impl Strategy<Value = Action> {
    let failing = prop::option::weighted(0.2, 0..batch);
    prop_oneof![
        8 => (1..=batch).prop_map(|limit| Action::Dispatch { limit }),
        12 => (any::<usize>(), 1..=batch, failing)
            .prop_map(|(first, count, failing)| Action::End { first, count, failing }),
        4 => (0..6_usize, any::<usize>()).prop_map(|(kind, node)| Action::Order { kind, node }),
        1 => Just(Action::Restart),
    ]
}

/// Any graph whose edges point backwards, so without cycles.
fn small_graph() -> impl Strategy<Value = Graph> {
    let node = (prop::collection::vec(any::<prop::sample::Index>(), 0..4), prop::bool::weighted(0.02));
    prop::collection::vec(node, 1..24).prop_map(|choices| {
        let nodes = (0_u32..).zip(choices).map(|(index, (upstreams, prohibit_rollback))| {
            let choose = |choice: prop::sample::Index| NodeIndex(choice.index(index as usize) as u32);
            let mut upstreams: Vec<_> = upstreams.into_iter().filter(|_| index > 0).map(choose).collect();
            upstreams.sort();
            upstreams.dedup();
            Node { upstreams, prohibit_rollback }
        });
        Graph::new(nodes.collect()).unwrap()
    })
}

/// How the nodes of a layer hang on those of the layer before.
#[derive(Debug, Clone, Copy)]
enum Weave {
    /// Hosts side by side that know nothing of each other.
    Chains,
    /// Each waits for its neighbour as well.
    Mesh,
    /// One node that waits for all.
    Join,
}

fn layered(layers: &[(usize, Weave)]) -> Graph {
    let mut nodes: Vec<Node> = Vec::new();
    let mut before: Vec<NodeIndex> = Vec::new();
    for (width, weave) in layers {
        let width = if matches!(weave, Weave::Join) { 1 } else { *width };
        let first = nodes.len() as u32;
        for position in 0..width {
            let nth = |position: usize| before.get(position % before.len().max(1)).copied();
            let mut upstreams: Vec<NodeIndex> = match weave {
                Weave::Chains => nth(position).into_iter().collect(),
                Weave::Mesh => nth(position).into_iter().chain(nth(position + 1)).collect(),
                Weave::Join => before.clone(),
            };
            upstreams.sort();
            upstreams.dedup();
            nodes.push(Node { upstreams, prohibit_rollback: false });
        }
        before = (first..nodes.len() as u32).map(NodeIndex).collect();
    }
    Graph::new(nodes).unwrap()
}

fn weave() -> impl Strategy<Value = Weave> {
    prop_oneof![4 => Just(Weave::Chains), 2 => Just(Weave::Mesh), 1 => Just(Weave::Join)]
}

fn live(graph: Graph, actions: &[Action]) -> World {
    let mut world = World::new(graph);
    actions.iter().for_each(|action| world.act(action));
    world.act(&Action::Restart);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_an_invariant(graph in small_graph(), actions in prop::collection::vec(action(5), 0..200)) {
        live(graph, &actions).retry_until_rest();
    }

    #[test]
    fn an_impossible_event_changes_nothing(graph in small_graph(), node in 0..30_u32, attempt in 0..3_u32) {
        let mut state = TaskState::new(graph);
        let before = state.clone();
        let event = Event::Succeeded { node: NodeIndex(node), attempt, effect: Effect::Done, output: Vec::new() };
        prop_assert!(state.apply(&event).is_err());
        prop_assert_eq!(state, before, "I2");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_history_of_a_wide_or_deep_graph_breaks_an_invariant(
        layers in prop::collection::vec((1..=200_usize, weave()), 1..=30),
        actions in prop::collection::vec(action(64), 0..60),
    ) {
        live(layered(&layers), &actions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1, max_shrink_iters: 8, ..ProptestConfig::default() })]

    #[test]
    fn six_thousand_subtasks_break_no_invariant(
        weaves in prop::collection::vec(weave(), 29),
        actions in prop::collection::vec(action(400), 60),
    ) {
        // Joins between the layers, not instead of them.
        let mut layers = vec![(200, Weave::Chains)];
        for weave in weaves {
            if matches!(weave, Weave::Join) {
                layers.push((1, weave));
            }
            layers.push((200, if matches!(weave, Weave::Join) { Weave::Chains } else { weave }));
        }
        live(layered(&layers), &actions);
    }
}
