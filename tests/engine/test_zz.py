import torch
from tests.engine.resuming.interruptions import RANDOM
from tokenlabel.engine.resuming.checkpoint_files import load_from_local
def show(x, d=0, n=''):
    pad='  '*d
    if isinstance(x, dict):
        for k,v in list(x.items())[:14]:
            if isinstance(v,(dict,list)) : print(pad,k,type(v).__name__,len(v)); show(v,d+1)
            elif isinstance(v,torch.Tensor): print(pad,k,tuple(v.shape),v.dtype)
            else: print(pad,k,str(v)[:80])
    elif isinstance(x, list):
        for v in x[:3]: print(pad,'-',type(v).__name__, '' if isinstance(v,dict) else str(v)[:60]); show(v,d+1)
def test_it(make_runner, tmp_path):
    r=make_runner(iterations=4, **(RANDOM|{'train_cfg.val_interval':4}))
    r.train()
    import os, shutil; shutil.copy(r.work_dir+'/iter_4.pth','/tmp/checkpoints/iter_4.pth')
    print(os.listdir(r.work_dir), os.path.getsize('/tmp/checkpoints/iter_4.pth'))
    c=load_from_local(r.work_dir+'/iter_4.pth'); 
    c['meta'].pop('cfg')
    show(c)
    print(r.optim_wrapper.optimizer.state_dict()['param_groups'][0])
