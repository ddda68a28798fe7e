"""Learning from data that is given: IQL on a learned reward, IPL and CPL without one, and the controls beside them."""
