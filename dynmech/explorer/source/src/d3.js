// In place of all of d3: what Observable Plot imports, without d3-transition and what needs it. That
// one is kept whole by any bundler, because it extends selections, and nothing here moves.
export * from "d3-array";
export * from "d3-axis";
export * from "d3-color";
export * from "d3-contour";
export * from "d3-delaunay";
export * from "d3-format";
export * from "d3-geo";
export * from "d3-hierarchy";
export * from "d3-interpolate";
export * from "d3-path";
export * from "d3-quadtree";
export * from "d3-random";
export * from "d3-scale";
export * from "d3-scale-chromatic";
export * from "d3-selection";
export * from "d3-shape";
export * from "d3-time";
export * from "d3-time-format";
