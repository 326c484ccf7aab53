// In place of Observable Plot's colour schemes: every colour is a variable of the page's style sheet.
export const isCategoricalScheme = () => false;
export const isDivergingScheme = () => false;
export const maybeBooleanRange = () => undefined;

function scheme(name) {
  throw new Error(`colours are of the style sheet, not of the scheme ${name}`);
}

export { scheme as ordinalScheme, scheme as ordinalRange, scheme as quantitativeScheme };
